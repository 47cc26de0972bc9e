-- One Postgres, four databases: the pipeline's own is made by the image, these by its first start.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
