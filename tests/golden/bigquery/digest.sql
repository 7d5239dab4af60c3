SELECT gb_shard, COUNT(*) AS gb_rows, SUM(gb_bytes) AS gb_size, MIN(gb_row) AS gb_first, MAX(gb_row) AS gb_last,
  BIT_XOR(CAST(CONCAT('0x', SUBSTR(gb_asked, 1, 15)) AS INT64)) AS gb_asked_1, BIT_XOR(CAST(CONCAT('0x', SUBSTR(gb_asked, 16, 15)) AS INT64)) AS gb_asked_16, BIT_XOR(CAST(CONCAT('0x', SUBSTR(gb_named, 1, 15)) AS INT64)) AS gb_named_1, BIT_XOR(CAST(CONCAT('0x', SUBSTR(gb_named, 16, 15)) AS INT64)) AS gb_named_16
FROM (
  SELECT gb_shard, gb_row, BYTE_LENGTH(TO_JSON_STRING(request)) AS gb_bytes,
    TO_HEX(MD5(CONCAT(CONCAT(CAST(gb_row AS STRING), ' ', TO_JSON_STRING(key), TO_JSON_STRING(JSON_OBJECT('stars', `stars`, 'lang', `lang`))), TO_JSON_STRING(request)))) AS gb_asked, TO_HEX(MD5(CONCAT(CAST(gb_row AS STRING), ' ', TO_JSON_STRING(key), TO_JSON_STRING(JSON_OBJECT('stars', `stars`, 'lang', `lang`))))) AS gb_named
  FROM `my-project.reviews.gb1_abc`
) AS gb_hashed
GROUP BY gb_shard ORDER BY gb_shard
