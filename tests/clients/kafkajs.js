// kafkajs against any cluster: BOOTSTRAP=host:port NODE_PATH=.tools/node/node_modules node kafkajs.js [CHECK ...]
//
// It speaks the oldest versions that live clients use (Produce 7, Fetch 11, Metadata 6, JoinGroup 5), never flexible
// ones. `kafkajs.js member ...` is a consumer group's member for groups.py, with the options of members.py.
'use strict'

const assert = require('node:assert/strict')
const crypto = require('node:crypto')
const { parseArgs } = require('node:util')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const zstd = require('@toondepauw/node-zstd')

const BOOTSTRAP = process.env.BOOTSTRAP
assert.ok(BOOTSTRAP, 'set BOOTSTRAP=host:port')
const CHECK_TIMEOUT_MS = 1000 * Number(process.env.CHECK_TIMEOUT_S ?? 90)
// The value of a lone record without key and headers in a batch of 1,048,588 bytes; see harness.py.
const VALUE_BYTES_MAX = 1048588 - 72

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => lz4.compressFrame(encoder.buffer),
  decompress: async buffer => lz4.decompressFrame(buffer)
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => new zstd.Encoder(3).encode(encoder.buffer),
  decompress: async buffer => new zstd.Decoder().decode(buffer)
})

const kafka = new Kafka({
  clientId: 'kafkajs-checks',
  brokers: [BOOTSTRAP],
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 100, retries: 10 }
})

const unique = stem => `${stem}-${process.pid.toString(16)}-${crypto.randomBytes(4).toString('hex')}`
const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))

async function until (condition, timeoutMs, what) {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const value = await condition()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await sleep(50)
  }
}

async function withClient (client, use) {
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.disconnect()
  }
}

const withAdmin = use => withClient(kafka.admin(), use)

async function createTopic (stem, partitions = 1) {
  const topic = unique(`kafkajs-${stem}`)
  await withAdmin(admin => admin.createTopics({
    topics: [{ topic, numPartitions: partitions, replicationFactor: 1 }], waitForLeaders: true
  }))
  return topic
}

async function produce (topic, messages, { acks = -1, compression = CompressionTypes.None, idempotent = false } = {}) {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: 1 })
  return withClient(producer, () => producer.send({ topic, messages, acks, compression }))
}

// kafkajs has no assign: every read is a group of one.
async function readFrom (topic, count, groupId = unique('kafkajs-reader')) {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 200, sessionTimeout: 10000, heartbeatInterval: 500 })
  const records = []
  return withClient(consumer, async () => {
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => { records.push({ partition, ...message }) }
    })
    await until(() => records.length >= count, 40000, `${count} records of ${topic}, have ${records.length}`)
    return records
  })
}

function mixedMessages (seed, partition) {
  const messages = []
  for (let index = 0; index < 60; index++) {
    const size = [1, 10, 100, 1000, 10000, 40000][index % 6]
    const noise = crypto.createHash('sha512').update(`${seed}/${index}`).digest('hex')
    let key = index % 3 === 0 ? null : Buffer.from(`key-${index % 10}`)
    let value = Buffer.from(noise.repeat(Math.ceil(size / noise.length)).slice(0, size))
    let headers = {}
    if (index % 4 === 1) headers = { trace: Buffer.from([0, 255, 16]), again: ['1', '2', '1'] }
    if (index % 10 === 7) [key, value] = [Buffer.from('gone'), null]
    if (index % 10 === 8) value = Buffer.alloc(0)
    messages.push({ key, value, headers, partition })
  }
  return messages
}

function digest (messages) {
  const hash = crypto.createHash('sha256')
  const add = content => {
    hash.update(content === null ? 'null;' : `${content.length};`)
    hash.update(content ?? '')
  }
  for (const { key, value, headers } of messages) {
    add(key)
    add(value)
    for (const [name, contents] of Object.entries(headers ?? {})) {
      for (const content of [contents].flat()) {
        add(Buffer.from(name))
        add(Buffer.from(content))
      }
    }
  }
  return hash.digest('hex')
}

const checks = {
  async topics_are_created_grown_and_deleted () {
    const topic = await createTopic('admin', 2)
    await withAdmin(async admin => {
      const again = await admin.createTopics({ topics: [{ topic, numPartitions: 2 }] })
      assert.equal(again, false, 'creating a topic twice')
      await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
      const partitionCount = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
      await until(async () => await partitionCount() === 4, 10000, 'four partitions')
      await admin.deleteTopics({ topics: [topic] })
      await until(async () => !(await admin.listTopics()).includes(topic), 10000, 'the topic leaves Metadata')
    })
    // kafkajs takes this error for a passing one and tries again for minutes unless told not to.
    await withClient(kafka.admin({ retry: { retries: 0 } }), async admin => {
      await assert.rejects(admin.deleteTopics({ topics: [topic] }), /does not host|UNKNOWN_TOPIC/)
    })
  },

  async cluster_and_configs_are_described () {
    const topic = await createTopic('configs')
    await withAdmin(async admin => {
      const cluster = await admin.describeCluster()
      assert.ok(cluster.clusterId)
      assert.ok(cluster.brokers.length >= 1)
      const { resources } = await admin.describeConfigs({
        includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }]
      })
      const found = resources[0].configEntries.find(entry => entry.configName === 'max.message.bytes')
      assert.equal(found?.configValue, '1048588')
    })
  },

  async every_codec_brings_back_what_was_sent () {
    for (const [name, compression] of Object.entries({
      none: CompressionTypes.None,
      gzip: CompressionTypes.GZIP,
      snappy: CompressionTypes.Snappy,
      lz4: CompressionTypes.LZ4,
      zstd: CompressionTypes.ZSTD
    })) {
      const topic = await createTopic(`codec-${name}`, 2)
      for (const idempotent of [false, true]) {
        const messages = mixedMessages(`${name}${idempotent}`, Number(idempotent))
        const [answer] = await produce(topic, messages, { compression, idempotent })
        assert.equal(answer.baseOffset, '0', `${name}: base offset`)
      }
      const records = await readFrom(topic, 120)
      for (const idempotent of [false, true]) {
        const got = records.filter(record => record.partition === Number(idempotent))
        const wanted = mixedMessages(`${name}${idempotent}`, Number(idempotent))
        assert.deepEqual(got.map(record => record.offset), wanted.map((_, index) => String(index)), `${name}: offsets`)
        assert.equal(digest(got), digest(wanted), `${name}: contents`)
      }
    }
  },

  async acks_0_1_and_all_store_alike () {
    const topic = await createTopic('acks', 3)
    for (const [partition, acks] of [-1, 1, 0].entries()) {
      await produce(topic, [{ key: null, value: 'first', partition }])
      await produce(topic, mixedMessages(`acks${acks}`, partition), { acks })
    }
    const records = await readFrom(topic, 3 * 61)
    for (const [partition, acks] of [-1, 1, 0].entries()) {
      const got = records.filter(record => record.partition === partition).slice(1)
      assert.equal(digest(got), digest(mixedMessages(`acks${acks}`, partition)), `acks ${acks}: contents`)
    }
  },

  async records_up_to_the_limit_pass_and_one_byte_more_does_not () {
    const topic = await createTopic('sizes')
    const sizes = [1, 65536, 1000000, VALUE_BYTES_MAX]
    const messages = sizes.map(size => ({ key: null, value: crypto.randomBytes(size) }))
    for (const message of messages) await produce(topic, [message])
    assert.equal(digest(await readFrom(topic, sizes.length)), digest(messages))
    await assert.rejects(produce(topic, [{ key: null, value: Buffer.alloc(VALUE_BYTES_MAX + 1) }]), failure => {
      assert.equal((failure.cause ?? failure).type ?? failure.type, 'MESSAGE_TOO_LARGE', String(failure))
      return true
    })
  },

  async seek_and_offsets_by_time () {
    const topic = await createTopic('seek')
    const base = (Math.floor(Date.now() / 1000) - 3600) * 1000
    const message = index => ({ value: `value-${index}`, timestamp: String(base + index * 10) })
    for (let batch = 0; batch < 200; batch += 20) {
      await produce(topic, Array.from({ length: 20 }, (_, index) => message(batch + index)))
    }
    await withAdmin(async admin => {
      for (const [time, offset] of [[base, 0], [base + 1234, 124], [base + 1990, 199], [base - 5, 0]]) {
        const [found] = await admin.fetchTopicOffsetsByTimestamp(topic, time)
        assert.equal(found.offset, String(offset), `the offset for ${time - base} ms`)
      }
      const [ends] = await admin.fetchTopicOffsets(topic)
      assert.deepEqual([ends.low, ends.high], ['0', '200'])
    })
    const consumer = kafka.consumer({ groupId: unique('kafkajs-seek'), maxWaitTimeInMs: 200 })
    await withClient(consumer, async () => {
      const seen = []
      await consumer.subscribe({ topics: [topic], fromBeginning: true })
      await consumer.run({ eachMessage: async ({ message }) => { seen.push(message.offset) } })
      consumer.seek({ topic, partition: 0, offset: '150' })
      await until(() => seen.length >= 50, 20000, 'records after a seek')
      assert.deepEqual(seen, Array.from({ length: 50 }, (_, index) => String(150 + index)))
    })
  },

  async committed_offsets_outlive_the_consumer () {
    const topic = await createTopic('commit')
    await produce(topic, Array.from({ length: 20 }, (_, index) => ({ value: String(index) })))
    const groupId = unique('kafkajs-commit')
    const first = kafka.consumer({ groupId, maxWaitTimeInMs: 200 })
    await withClient(first, async () => {
      let seen = 0
      await first.subscribe({ topics: [topic], fromBeginning: true })
      await first.run({ autoCommit: false, eachMessage: async () => { seen++ } })
      await until(() => seen >= 20, 20000, 'the first 20 records')
      await first.commitOffsets([{ topic, partition: 0, offset: '7', metadata: 'seven' }])
    })
    await withAdmin(async admin => {
      const [found] = await admin.fetchOffsets({ groupId, topics: [topic] })
      assert.deepEqual(found.partitions.map(({ offset, metadata }) => [offset, metadata]), [['7', 'seven']])
    })
    const records = await readFrom(topic, 13, groupId)
    assert.deepEqual(records.map(record => record.offset), Array.from({ length: 13 }, (_, index) => String(7 + index)))
  },

  async groups_are_listed_and_described () {
    const topic = await createTopic('describe')
    const groupId = unique('kafkajs-describe')
    const consumer = kafka.consumer({ groupId })
    await withClient(consumer, async () => {
      let joined = false
      consumer.on(consumer.events.GROUP_JOIN, () => { joined = true })
      await consumer.subscribe({ topics: [topic] })
      await consumer.run({ eachMessage: async () => {} })
      await until(() => joined, 20000, 'a member')
      await withAdmin(async admin => {
        const { groups: [group] } = await admin.describeGroups([groupId])
        assert.equal(group.state, 'Stable')
        assert.deepEqual(group.members.map(member => member.clientId), ['kafkajs-checks'])
        assert.ok((await admin.listGroups()).groups.some(listed => listed.groupId === groupId))
      })
    })
  }
}

async function beMember (options) {
  const consumer = kafka.consumer({
    groupId: options.group,
    sessionTimeout: Number(options['session-timeout-ms']),
    heartbeatInterval: 500,
    rebalanceTimeout: 10000,
    maxWaitTimeInMs: 200
  })
  const report = event => process.stdout.write(JSON.stringify(event) + '\n')
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    report({ event: 'assigned', partitions: payload.memberAssignment[options.topic] ?? [] })
  })
  consumer.on(consumer.events.REBALANCING, () => report({ event: 'revoked', partitions: [] }))
  await consumer.connect()
  await consumer.subscribe({ topics: [options.topic], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      report({ event: 'record', partition, offset: Number(message.offset), value: message.value.toString() })
      await consumer.commitOffsets([{ topic: options.topic, partition, offset: String(Number(message.offset) + 1) }])
    }
  })
  process.stdin.resume()
  process.stdin.on('end', async () => {
    await consumer.disconnect()
    process.exit(0)
  })
}

async function runChecks (names) {
  let failed = 0
  for (const name of names.length > 0 ? names : Object.keys(checks)) {
    const started = Date.now()
    let verdict = 'ok'
    let timer
    try {
      const timeout = new Promise((resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`not done after ${CHECK_TIMEOUT_MS} ms`)), CHECK_TIMEOUT_MS)
      })
      await Promise.race([checks[name](), timeout])
    } catch (failure) {
      failed++
      verdict = `FAILED: ${failure.stack}`
    } finally {
      clearTimeout(timer)
    }
    console.log(`kafkajs ${name} ${((Date.now() - started) / 1000).toFixed(1)} s ${verdict}`)
  }
  process.exit(failed > 0 ? 1 : 0)
}

if (process.argv[2] === 'member') {
  const { values } = parseArgs({
    args: process.argv.slice(3),
    options: {
      group: { type: 'string' },
      topic: { type: 'string' },
      'session-timeout-ms': { type: 'string', default: '6000' }
    }
  })
  beMember(values)
} else {
  runChecks(process.argv.slice(2))
}
