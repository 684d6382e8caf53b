"""What the library is measured with: recipes, benchmarks, geometry, their records and tables."""
