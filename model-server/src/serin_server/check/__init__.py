"""Says what a model file is without loading it: no code of the file runs, and of what it names only classes of
scikit-learn are looked up."""
