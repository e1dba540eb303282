"""A text or text pair -> token ids and token type ids."""
