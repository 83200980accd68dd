"""Turns a granted right into a certificate."""
