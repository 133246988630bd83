-- The two roles that a warehouse on PostgreSQL needs, each with no more rights than it uses:
--
--   devin_writer    makes the tables and views and writes the rows; its name and password go into WAREHOUSE_URL
--   devin_analyst   reads every table and view, also those that a later release adds, and changes none
--
-- Run it in a database that is for the warehouse alone, before the first load, as a superuser. From PostgreSQL 15 on,
-- the owner of the database is enough if it may create roles. It is plain SQL, so any client will do; in psql, add
-- --single-transaction. It can be run again, and in a second database of the same server: roles that are there already
-- are left as they are.
--
-- There is no password in this file. Both roles may log in, but where the server asks for passwords neither can until
-- it has one. In psql, \password devin_writer sets it without a trace in the server's log; elsewhere it is:
--
--   alter role devin_writer password '…';
--   alter role devin_analyst password '…';
--
-- A warehouse that another user has filled already is handed over by running what this answers:
--
--   select 'alter table ' || oid::regclass || ' owner to devin_writer;' from pg_class
--   where relnamespace = 'public'::regnamespace and relkind in ('r', 'v');
--
-- Not ruled here, as it is not the database's own: which other databases of the server let everyone connect, and what
-- PostgreSQL lets anyone do who is connected, such as holding advisory locks or making large objects.


-- The roles. Neither is a superuser, makes databases or roles, replicates, or passes row security.
do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'devin_writer') then
        create role devin_writer
            login password null nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
    end if;
    if not exists (select from pg_catalog.pg_roles where rolname = 'devin_analyst') then
        create role devin_analyst
            login password null nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
    end if;
end
$$;


-- The database. Into a new one everyone may connect, and make temporary tables there; from here on only these two may,
-- beside its owner. The writer needs temporary tables: it fills them by COPY before it merges them into the others.
do $$
declare
    this_database constant text := quote_ident(current_database());
begin
    execute 'revoke all on database ' || this_database || ' from public';
    execute 'grant connect, temporary on database ' || this_database || ' to devin_writer';
    execute 'grant connect on database ' || this_database || ' to devin_analyst';
end
$$;


-- The schema. Up to PostgreSQL 14 everyone could create tables in it; now the writer alone can. What it creates it owns,
-- which is what lets a later release change the tables.
revoke all on schema public from public;
grant usage, create on schema public to devin_writer;
grant usage on schema public to devin_analyst;


-- The tables and views that are there already, and those that the writer will make. Views count as tables here, and
-- read with the rights of the writer that owns them.
grant select on all tables in schema public to devin_analyst;

-- Only a member of the writer may say what holds for the writer's future tables: whoever runs this is one meanwhile.
grant devin_writer to current_user;
alter default privileges for role devin_writer in schema public grant select on tables to devin_analyst;
revoke devin_writer from current_user;
