"""Learned steering: what is trained by gradients through a frozen model."""
