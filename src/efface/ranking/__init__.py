"""Records ranked by how much the model memorised them: ``efface.inspect``.

``run``: ``inspect`` and its resumable shards · ``ranking``: the result · ``page``: its tables and
page · ``content``: information content · ``neighbours``: balls over the data · ``curvature``:
derivatives by the input · ``storage``: sources of records, stores of shards. This file imports
nothing, so that ``content`` alone stays cheap to import.
"""
