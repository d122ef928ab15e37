"""Live checks of a configuration: `akoya-gateway doctor`."""
