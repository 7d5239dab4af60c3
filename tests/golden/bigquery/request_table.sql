SELECT
  CONCAT('tag2-', LPAD(CAST(DIV(gb_number, 200000) AS STRING), 4, '0'), '-',
    LPAD(CAST(MOD(gb_number, 200000) AS STRING), 7, '0')) AS wire_key,
  gb_key AS key, gb_request AS request, `stars`, `lang`,
  DIV(gb_number, 200000) AS gb_shard, MOD(gb_number, 200000) AS gb_row
FROM (
  SELECT CAST(`id` AS STRING) AS gb_key, `request` AS gb_request, `stars`, `lang`,
    ROW_NUMBER() OVER (ORDER BY CAST(`id` AS STRING)) - 1 AS gb_number
  FROM (
SELECT id, request, stars, lang FROM `p-one.d.t`
  ) AS gb_asked
) AS gb_numbered
