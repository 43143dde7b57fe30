"""Serin's model server: fetches a model, serves it over the Open Inference Protocol V2, measures itself."""

__version__ = "0.1.0"
