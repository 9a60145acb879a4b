"""A PySpark step: writes a data frame beside its target, and puts it in place by one rename inside the zone.

    spark-submit --deploy-mode cluster --py-files ringfence_client.py --files agent.token,ca.pem \
        --conf spark.yarn.appMasterEnv.RINGFENCE_AGENT_URL=https://agent.example.com:9601 \
        --conf spark.yarn.appMasterEnv.RINGFENCE_AGENT_TOKEN_FILE=agent.token \
        --conf spark.yarn.appMasterEnv.RINGFENCE_AGENT_CA_FILE=ca.pem \
        pyspark_step.py /data/pii/raw /data/pii/daily/dt=2026-11-22

`ringfence_client.py` is of the release (`ringfence_agent/client.py` of the wheel), the token one of
`ringfence agent token issue`. In client mode on the agent's own node neither token nor URL is needed: the agent's Unix
socket is used. Python 3.7.
"""

import sys

from ringfence_client import AgentClient, AgentError


def publish(spark, agent, frame, target):
    """Writes `frame` where the agent says, then renames it to `target`. Raises SystemExit with what to do instead."""
    application = spark.sparkContext.applicationId
    places = agent.places(target, job=application)
    staged = "{}/result".format(places.staging)
    answer = agent.check_move(staged, target)
    if not answer.rename:
        raise SystemExit("{}; instead: {}".format(answer.reason, answer.command))
    jvm = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path
    files = path(target).getFileSystem(spark._jsc.hadoopConfiguration())
    try:
        frame.write.parquet(staged)
        files.mkdirs(path(target).getParent())
        if not files.rename(path(staged), path(target)):
            raise SystemExit("HDFS did not rename {} to {}: is it there already?".format(staged, target))
    finally:
        files.delete(path(places.staging), True)


def main(source, target):
    """Removes duplicate rows of `source` into `target`."""
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.getOrCreate()
    try:
        publish(spark, AgentClient(), spark.read.parquet(source).distinct(), target)
    except AgentError as error:
        raise SystemExit("cannot ask the agent: {}".format(error))
    finally:
        spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
