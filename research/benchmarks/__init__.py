"""Each script makes the records of one page of results, and its tables."""
