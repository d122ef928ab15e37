"""The data APIs (docs/akoya.md section 6): one module for each kind of data, and `api`, which admits the requests."""

PRODUCTS = (
    "accounts-info",
    "balances",
    "accounts",
    "taxlots",
    "transactions",
    "payments",
    "customers",
    "contacts",
    "statements",
    "tax-forms",
)
"""Akoya's products: the first segment of a data path."""
