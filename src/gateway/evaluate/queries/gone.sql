-- What is gone, and what is no longer known of payments that were touched.
delete from facts where unit in (select unit from gone_files where name = 'decisions');
delete from units where unit in (select unit from gone_files);
delete from evidence where key in (select key from touched);
