"""What every key store keeps, wherever its rows rest: rows, their tags, seals and ledger, and changes of them."""
