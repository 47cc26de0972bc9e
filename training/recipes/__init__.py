"""Choose what to train: recipes, their plan for a night, default hyperparameters, mixture, search, memory estimate."""
