SELECT wire_key, key, request, `stars`, `lang` FROM `my-project.reviews.gb1_abc` WHERE gb_shard = 3 AND gb_row NOT IN (5, 7)
