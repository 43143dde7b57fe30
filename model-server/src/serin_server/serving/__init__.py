"""One inference on its way, whatever brought it: between the transports and the model."""
