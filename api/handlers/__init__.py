"""What each operation does, one file per noun: asks the ledger or reads tables, shapes the answer."""
