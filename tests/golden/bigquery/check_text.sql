SELECT mistake, times, key FROM (
  SELECT mistake, key, COUNT(*) OVER (PARTITION BY mistake) AS times,
    ROW_NUMBER() OVER (PARTITION BY mistake ORDER BY gb_shard, gb_row) AS place
  FROM (
    SELECT key, gb_shard, gb_row, CASE
      WHEN key IS NULL THEN 0
      WHEN key = '' THEN 1
      WHEN gb_times > 1 THEN 2
      WHEN gb_none THEN 3
      WHEN gb_json IS NULL THEN 4
      WHEN JSON_TYPE(gb_json) != 'object' THEN 5
      WHEN JSON_QUERY(gb_json, '$.contents') IS NULL THEN 6
      WHEN JSON_TYPE(JSON_QUERY(gb_json, '$.contents')) != 'array' THEN 7
      WHEN ARRAY_LENGTH(JSON_QUERY_ARRAY(gb_json, '$.contents')) = 0 THEN 8
      WHEN EXISTS (SELECT 1 FROM UNNEST(JSON_QUERY_ARRAY(gb_json, '$.contents')) AS turn WHERE IFNULL(JSON_TYPE(JSON_QUERY(turn, '$.parts')), 'none') != 'array' OR ARRAY_LENGTH(JSON_QUERY_ARRAY(turn, '$.parts')) = 0) THEN 9
      WHEN JSON_QUERY(gb_json, '$.cachedContent') IS NOT NULL OR JSON_QUERY(gb_json, '$.cached_content') IS NOT NULL THEN 10
      WHEN TO_JSON_STRING(JSON_REMOVE(gb_json, '$.contents', '$.systemInstruction', '$.system_instruction', '$.tools', '$.toolConfig', '$.tool_config', '$.safetySettings', '$.safety_settings', '$.generationConfig', '$.generation_config', '$.labels', '$.cachedContent', '$.cached_content', '$.modelArmorConfig', '$.model_armor_config', '$.outputConfig', '$.output_config', '$.continuationToken', '$.continuation_token', '$.model')) != '{}' THEN 11
      WHEN REGEXP_CONTAINS(REGEXP_REPLACE(gb_text, r'"(?:[^"\\]|\\.)*"', '""'), r'\{\s*\}') THEN 12
      END AS mistake
    FROM (
      SELECT key, gb_shard, gb_row, SAFE.PARSE_JSON(request) AS gb_json, request AS gb_text,
        request IS NULL AS gb_none, COUNT(*) OVER (PARTITION BY key) AS gb_times
      FROM `my-project.reviews.gb1_abc`
    ) AS gb_rows
  ) AS gb_judged
  WHERE mistake IS NOT NULL
) AS gb_ranked
WHERE place <= 20 ORDER BY mistake, place
