"""Meters, price book, ledger and budgets. Empty until usage is priced: prediction records already carry its slots."""
