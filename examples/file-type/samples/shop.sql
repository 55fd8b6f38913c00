CREATE TABLE customers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    since DATE NOT NULL
);

CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    total NUMERIC(10, 2) NOT NULL CHECK (total >= 0)
);

CREATE INDEX orders_by_customer ON orders (customer_id);

SELECT customers.name, COUNT(*) AS orders, SUM(orders.total) AS spent
FROM customers
JOIN orders ON orders.customer_id = customers.id
WHERE customers.since < '2020-01-01'
GROUP BY customers.name
HAVING SUM(orders.total) > 1000
ORDER BY spent DESC;
