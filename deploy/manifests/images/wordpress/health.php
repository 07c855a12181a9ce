<?php
/* Whether this server and its database answer, without all of WordPress: for probes. */
mysqli_report(MYSQLI_REPORT_OFF);
$database = @mysqli_connect(getenv('WORDPRESS_DB_HOST'), getenv('WORDPRESS_DB_USER'), getenv('WORDPRESS_DB_PASSWORD'));
http_response_code($database ? 200 : 503);
echo $database ? "ok\n" : "no database\n";
