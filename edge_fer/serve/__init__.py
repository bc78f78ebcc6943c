"""The HTTP service and its page; the worker behind them knows neither."""
