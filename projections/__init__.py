"""Tables that can be thrown away: the ledger, retold for reading."""
