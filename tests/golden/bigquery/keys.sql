SELECT gb_row, TO_JSON_STRING(key) AS gb_key, TO_JSON_STRING(JSON_OBJECT('stars', `stars`, 'lang', `lang`)) AS gb_passed FROM `my-project.reviews.gb1_abc` WHERE gb_shard = 3 ORDER BY gb_row
