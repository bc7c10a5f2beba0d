"""Reference draws by Stan's NUTS, for comparison with a fit."""
