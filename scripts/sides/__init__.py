"""The sides that `parity.py` compares: minitrain, transformers' Trainer, and the loop of accelerate's example."""
