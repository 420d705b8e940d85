#!/bin/sh
# Run once by the image's entrypoint, in an empty cluster: the roles and databases of urban-reid and of Prefect. Passwords
# are read by psql from files, so that none stands in a command line.
set -eu
cd "${SECRETS:-/run/secrets}"
psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username=postgres --dbname=postgres <<'SQL'
\set city `cat city_password`
\set prefect `cat prefect_password`
CREATE ROLE urban_reid_owner BYPASSRLS;
CREATE ROLE urban_reid_worker BYPASSRLS;
CREATE ROLE urban_reid_app;
CREATE ROLE urban_reid_signin;
CREATE ROLE program LOGIN NOINHERIT PASSWORD :'city';
GRANT urban_reid_owner, urban_reid_worker, urban_reid_app, urban_reid_signin TO program;
CREATE DATABASE city OWNER urban_reid_owner;
REVOKE CONNECT ON DATABASE city FROM PUBLIC;
GRANT CONNECT ON DATABASE city TO program;
\connect city
CREATE EXTENSION vector;
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE DATABASE prefect OWNER prefect;
REVOKE CONNECT ON DATABASE prefect FROM PUBLIC;
SQL
