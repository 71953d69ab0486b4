"""The only place where the rooms meet: train and register, release, collect, monitor, retrain, schedule."""
