"""Charts (Altair) and the report: what the tables of moefps look like."""
