"""What may happen, what did happen, and the proof that it was not altered."""
