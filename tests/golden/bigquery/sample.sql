SELECT key, wire_key, TO_JSON_STRING(request) AS gb_text FROM `my-project.reviews.gb1_abc` ORDER BY TO_HEX(MD5(key)), key LIMIT 200
