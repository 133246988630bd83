-- The two roles that a warehouse on PostgreSQL needs, each with no more rights than it uses:
--
--   devin_writer    makes the tables and views and writes the rows; its name and password go into WAREHOUSE_URL
--   devin_analyst   reads every table and view, also those that a later release adds, and can change nothing
--
-- Run it in the warehouse's own, empty database, as a superuser. From PostgreSQL 15 on, the owner of the database is
-- enough if it may create roles. It is plain SQL, so any client will do; in psql, add --single-transaction. It can be
-- run again, and in a second database of the same server: roles that are there already are left as they are.
--
-- There is no password in this file: both roles may log in, and none can until you give it one. So that the password
-- is neither in a file nor in the server's log, set it in psql with \password devin_writer, or else with:
--
--   alter role devin_writer password '…';
--   alter role devin_analyst password '…';
--
-- A database that was filled under another user's name is handed over first: reassign owned by that_user to devin_writer;


-- The roles. Neither is a superuser, makes databases or roles, or passes row security.
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


-- The database. Everyone may connect to a new one and make temporary tables in it; from here on only these two connect.
-- The writer needs temporary tables, which it fills by COPY before it merges them. The name is asked for, not written.
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


-- Tables and views that are there already, and those that the writer will make. Views count as tables here, and run
-- with the rights of the writer that owns them.
grant select on all tables in schema public to devin_analyst;

-- Whoever says what holds for the writer's future tables must be a member of that role: for as long as that takes.
grant devin_writer to current_user;
alter default privileges for role devin_writer in schema public grant select on tables to devin_analyst;
revoke devin_writer from current_user;
