<?php
/* Everything that differs from one site to the next comes from the environment. */
$table_prefix = 'wp_';
define('DB_HOST', getenv('WORDPRESS_DB_HOST') ?: 'mysql');
define('DB_USER', getenv('WORDPRESS_DB_USER') ?: 'wordpress');
define('DB_PASSWORD', getenv('WORDPRESS_DB_PASSWORD') ?: '');
define('DB_NAME', getenv('WORDPRESS_DB_NAME') ?: 'wordpress');
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
/* Every pod of a site must sign cookies with the same keys. */
foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $what) {
    define($what . '_KEY', hash('sha256', $what . ' key ' . DB_PASSWORD));
    define($what . '_SALT', hash('sha256', $what . ' salt ' . DB_PASSWORD));
}
/* By whatever address it is asked: a load balancer's, an Ingress' host, a forwarded port. */
define('WP_HOME', 'http://' . ($_SERVER['HTTP_HOST'] ?? 'localhost'));
define('WP_SITEURL', WP_HOME);
define('WP_DEFAULT_THEME', 'plain');
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('DISABLE_WP_CRON', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
if (!defined('ABSPATH')) {
    define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';
