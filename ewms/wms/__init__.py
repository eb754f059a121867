"""The WMS REST client: its objects, its authentication, its calls."""
