"""What other people's tools need to reach a served model; each module is for one of them and imports it."""
