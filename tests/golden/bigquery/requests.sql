SELECT gb_row, request AS gb_text FROM `my-project.reviews.gb1_abc` WHERE gb_shard = 3 AND gb_row IN (1, 2) ORDER BY gb_row
