"""Several methods and seeds on one request: ``run`` makes the cells, ``page`` shows them."""
