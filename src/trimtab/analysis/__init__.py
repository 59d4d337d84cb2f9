"""What vectors are and what models do with them. One folder per study; `quality` says whether to trust a vector."""
