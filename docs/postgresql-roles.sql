-- The two roles that a warehouse on PostgreSQL needs, each with only the permissions that it uses:
--
--   devin_writer    creates the tables and views and writes the rows; its name and password go into WAREHOUSE_URL
--   devin_analyst   reads every table and view, including those that later releases add, except the five that only the
--                   job needs, and can't change any
--
-- Run this in a database that only the warehouse uses, before the first load, as a superuser. From PostgreSQL 15 on,
-- the owner of the database can run it too, if allowed to create roles. It is plain SQL, so any client will do; in
-- psql, add --single-transaction. You can run it again, and in a second database on the same server: roles that
-- already exist are left as they are.
--
-- In a database that others use too, first say which schema is to be the warehouse's, that of DEVIN_SCHEMA. Then nothing
-- outside of that schema changes, except that the roles may connect:
--
--   set devin.schema = 'metrics';
--
-- In psql, --command "set devin.schema = 'metrics'" before --file does. For the schema of another enterprise, whose
-- counts these roles may not see, replace devin_ by another prefix everywhere in this file.
--
-- There is no password in this file. Both roles may log in, but if the server asks for passwords, neither can until it
-- has one. In psql, \password devin_writer sets it without a trace in the server's log; in other clients, run:
--
--   alter role devin_writer password '…';
--   alter role devin_analyst password '…';
--
-- To hand over a warehouse that another user has already filled, run the statements that this query returns:
--
--   select 'alter table ' || oid::regclass || ' owner to devin_writer;' from pg_class
--   where relnamespace = 'public'::regnamespace and relkind in ('r', 'v');  -- or the schema of DEVIN_SCHEMA
--
-- Two things are outside the scope of this script: other databases on the server that anyone may connect to, and what
-- PostgreSQL lets every connected user do, such as holding advisory locks or creating large objects.


-- The roles. Neither is a superuser, creates databases or roles, replicates, or bypasses row-level security.
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


-- The database. In a new one, everyone may connect and create temporary tables; from here on, only the owner and these
-- two roles may connect, unless it is shared. The writer needs temporary tables, which it fills by COPY and then merges
-- into the others.
--
-- The schema. Up to PostgreSQL 14, everyone could create tables in `public`; now only the writer can. It owns what it
-- creates, which allows later releases to change the tables.
--
-- The tables and views that already exist, and those that the writer will create. Views count as tables here, and read
-- with the permissions of the writer, who owns them: so `calendar` works although the analyst may not read the table
-- behind it. The job itself takes the tables that only it needs from the analyst, when it creates them.
do $$
declare
    this_database constant text := quote_ident(current_database());
    chosen constant text := coalesce(nullif(current_setting('devin.schema', true), ''), 'public');
    this_schema constant text := quote_ident(chosen);
    this_table text;
begin
    if chosen = 'public' then
        execute 'revoke all on database ' || this_database || ' from public';
    elsif not exists (select from pg_catalog.pg_namespace where nspname = chosen) then
        execute 'create schema ' || this_schema;
    end if;
    execute 'grant connect, temporary on database ' || this_database || ' to devin_writer';
    execute 'grant connect on database ' || this_database || ' to devin_analyst';

    execute 'revoke all on schema ' || this_schema || ' from public';
    execute 'grant usage, create on schema ' || this_schema || ' to devin_writer';
    execute 'grant usage on schema ' || this_schema || ' to devin_analyst';

    execute 'grant select on all tables in schema ' || this_schema || ' to devin_analyst';
    for this_table in
        select quote_ident(relname) from pg_catalog.pg_class
        where relnamespace = to_regnamespace(this_schema)
            and relname in ('api_pace', 'day_boundary', 'expected_days', 'stale_days', 'warehouse_version')
    loop
        execute 'revoke all on ' || this_schema || '.' || this_table || ' from devin_analyst';
    end loop;
    -- Only members of the writer may set default privileges for its future tables, so the user joins temporarily.
    grant devin_writer to current_user;
    execute 'alter default privileges for role devin_writer in schema ' || this_schema
        || ' grant select on tables to devin_analyst';
    revoke devin_writer from current_user;
end
$$;
