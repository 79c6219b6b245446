"""Training on one machine or many: recipes, data, and the pictures that the project draws itself."""
