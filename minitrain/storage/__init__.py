"""What survives a crash: files written whole, checkpoints, downloads, the token cache."""
