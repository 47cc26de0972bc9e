"""Sample for online objectives: rollouts, reward model, teacher, advantages."""
