"""The Open Inference Protocol V2: JSON in, numpy out, and back. Pure: no I/O, no clock, no model."""
