"""The transparency log: what is hashed, the tree over it, and its proofs.

It imports nothing else of ours, no database and no pydantic: an auditor reads it alone.
"""
