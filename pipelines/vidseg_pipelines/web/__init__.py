"""What the page and the server share: a web application on a port, results in any order, uploads and downloads."""
