// kafkajs as a client library of judged tests: BOOTSTRAP=host:port,... node kafkajs_judged.js, which is told what to do by judged_programs.py, where
// the commands are described.
//
// What kafkajs does in its own way is told in docs/clients.md.
'use strict'

const crypto = require('node:crypto')
const readline = require('node:readline')
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')

const POLL_TIMEOUT_MS = 300
// How long a commit waits for its answer.
const COMMIT_TIMEOUT_MS = 40_000
const RESTART_PAUSE_MS = 300
const RETRY_PAUSE_MS = 100
// kafkajs repeats what was not answered in time at the same broker until it asks for metadata, by default every five minutes.
const METADATA_MAX_AGE_MS = 5_000

// In which franz-go sends.
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec

const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))
const answer = (id, content) => process.stdout.write(JSON.stringify({ ...content, id }) + '\n')
const nameOf = failure => (failure.cause ?? failure).type ?? failure.name
const log = what => process.stderr.write(`${new Date().toISOString()} ${what}\n`)

// As librdkafka and the others have it in these tests. Enough retries that only time ends them.
const kafka = new Kafka({
  clientId: 'kafkajs-judged',
  brokers: (process.env.BOOTSTRAP ?? '').split(','),
  requestTimeout: 5_000,
  connectionTimeout: 2_000,
  retry: { initialRetryTime: 50, maxRetryTime: 300, retries: 100 },
  logLevel: logLevel.WARN,
  logCreator: () => ({ label, log: { message, ...more } }) => log(`${label} ${message} ${JSON.stringify(more)}`)
})

// Does it until it succeeds or the time is over.
async function repeated (act, timeoutMs) {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    try {
      return await act()
    } catch (failure) {
      if (Date.now() > deadline) throw failure
      await sleep(RESTART_PAUSE_MS)
    }
  }
}

// Ends a client; nobody waits until its connections are closed.
function disconnect (client) {
  client.disconnect().catch(failure => log(`a client that was left: ${failure}`))
}

class NotAnswered extends Error {
  name = 'NotAnswered'
}

async function within (timeoutMs, promise) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new NotAnswered(`not answered after ${timeoutMs} ms`)), timeoutMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

// One call for each partition at a time: kafkajs takes the sequence of the next batch when it sends, and gives it back when that fails, so that a
// second call for the same partition would use it for other records. For the same reason nothing is sent any more once a call has failed.
class Producer {
  constructor ({ timeout_ms: timeoutMs }) {
    this.timeoutMs = timeoutMs
    this.connected = repeated(() => this.connect(), timeoutMs)
    this.connected.catch(failure => this.fail(failure))
    this.waiting = new Map()
    this.busy = new Set()
    this.failure = null
  }

  // A new one for each try: one whose first broker did not answer in time says "Broker not connected" ever after.
  async connect () {
    this.kafka = kafka.producer({ idempotent: true, maxInFlightRequests: 1, metadataMaxAge: METADATA_MAX_AGE_MS, retry: { retries: 1 } })
    try {
      await this.kafka.connect()
    } catch (failure) {
      disconnect(this.kafka)
      throw failure
    }
  }

  obey (command, told) {
    switch (command) {
      case 'send': return this.take(told)
      case 'drop': return this.drop()
      case 'close': return this.kafka.disconnect()
      default: throw new Error(`a producer does not ${command}`)
    }
  }

  take (told) {
    const key = `${told.topic}/${told.partition}`
    if (!this.waiting.has(key)) this.waiting.set(key, [])
    this.waiting.get(key).push(told)
    this.sendWaiting(key)
  }

  async sendWaiting (key) {
    if (this.busy.has(key)) return
    this.busy.add(key)
    const waiting = this.waiting.get(key)
    while (waiting.length > 0) {
      const records = waiting.splice(0)
      if (this.failure) this.refuse(records)
      else await this.send(records)
    }
    this.busy.delete(key)
  }

  async send (records) {
    const { topic, partition } = records[0]
    try {
      await this.connected
      if (this.failure) return this.refuse(records)
      const [told] = await within(this.timeoutMs, this.sendUntilAnswered(topic, records.map(messageOf)))
      if (told.topicName !== topic || told.partition !== partition) throw new Error(`asked for ${topic}/${partition}, told of ${JSON.stringify(told)}`)
      records.forEach(({ id }, index) => answer(id, { offset: Number(told.baseOffset) + index }))
    } catch (failure) {
      this.fail(failure)
      records.forEach(({ id }) => answer(id, { error: nameOf(failure), refused: nameOf(failure) === 'MESSAGE_TOO_LARGE' }))
    }
  }

  // What kafkajs does by itself if it is given more `retries`; but it goes on with that after the producer was disconnected, and nothing ends it.
  async sendUntilAnswered (topic, messages) {
    for (;;) {
      try {
        return await this.kafka.send({ topic, acks: -1, messages })
      } catch (failure) {
        if (this.failure || failure.name !== 'KafkaJSNumberOfRetriesExceeded') throw failure
        await sleep(RETRY_PAUSE_MS)
      }
    }
  }

  fail (failure) {
    log(`producer: ${failure}`)
    this.failure ??= failure
  }

  // They were never given to kafkajs.
  refuse (records) {
    records.forEach(({ id }) => answer(id, { error: nameOf(this.failure), refused: true }))
  }

  drop () {
    this.failure ??= new Error('dropped')
    disconnect(this.kafka)
  }
}

function messageOf ({ partition, key, value, headers }) {
  const named = {}
  for (const [name, content] of headers) (named[name] ??= []).push(Buffer.from(content, 'base64'))
  return { partition, key: key === null ? null : Buffer.from(key, 'base64'), value: Buffer.from(value, 'base64'), headers: named }
}

// kafkajs hands batches over when it likes: each waits until it is polled, and is done with when the next command comes.
class Member {
  constructor ({ group, topics }) {
    this.group = group
    this.topics = topics
    this.assigned = []
    this.moved = []
    this.errors = []
    // What kafkajs hands over and nobody has polled; what was polled last; who waits for the former.
    this.offered = []
    this.current = null
    this.wake = () => {}
    this.closing = false
    this.running = this.startUntilItRuns()
  }

  startUntilItRuns () {
    return repeated(() => this.closing || this.start(), Infinity)
  }

  async start () {
    this.kafka = kafka.consumer({
      groupId: this.group, sessionTimeout: 6_000, heartbeatInterval: 500, rebalanceTimeout: 10_000, maxWaitTimeInMs: 100, readUncommitted: false,
      metadataMaxAge: METADATA_MAX_AGE_MS
    })
    this.kafka.on(this.kafka.events.GROUP_JOIN, ({ payload }) => {
      const assigned = Object.entries(payload.memberAssignment).flatMap(([topic, partitions]) => partitions.map(partition => [topic, partition]))
      this.moved.push(...this.assigned, ...assigned)
      this.assigned = assigned
    })
    this.kafka.on(this.kafka.events.REBALANCING, () => this.moved.push(...this.assigned))
    this.kafka.on(this.kafka.events.CRASH, ({ payload: { error, restart } }) => {
      this.errors.push(`crash ${nameOf(error)}`)
      // It starts itself again after errors that it takes for passing ones.
      if (!restart && !this.closing) this.running = sleep(RESTART_PAUSE_MS).then(() => this.startUntilItRuns())
    })
    try {
      await this.kafka.connect()
      await this.kafka.subscribe({ topics: this.topics, fromBeginning: true })
      await this.kafka.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: context => this.offer(context) })
    } catch (failure) {
      this.errors.push(`start ${nameOf(failure)}`)
      disconnect(this.kafka)
      throw failure
    }
  }

  offer (context) {
    return new Promise((resolve, reject) => {
      if (this.closing) return resolve()
      this.offered.push({ context, resolve, reject })
      this.wake()
    })
  }

  async obey (command, told) {
    switch (command) {
      case 'poll': return await this.poll()
      case 'commit': return await this.commit(told.offsets)
      case 'close': return await this.close()
      default: throw new Error(`a member does not ${command}`)
    }
  }

  async poll () {
    this.finish()
    if (this.offered.length === 0) {
      let timer
      await new Promise(resolve => {
        this.wake = resolve
        timer = setTimeout(resolve, POLL_TIMEOUT_MS)
      })
      clearTimeout(timer)
      this.wake = () => {}
    }
    this.current = this.offered.shift() ?? null
    const records = this.current ? recordsOf(this.current.context.batch) : []
    const [moved, errors] = [this.moved, this.errors]
    this.moved = []
    this.errors = []
    return { records, moved, errors }
  }

  // The batch that was polled counts as processed.
  finish (failure) {
    const current = this.current
    this.current = null
    if (!current) return
    if (failure) return current.reject(failure)
    current.context.resolveOffset(current.context.batch.lastOffset())
    current.resolve()
  }

  // By the batch's own function: `consumer.commitOffsets` says nothing if the consumer does not run.
  async commit (positions) {
    const topics = positions.map(([topic, partition, offset]) => ({ topic, partitions: [{ partition, offset: String(offset) }] }))
    try {
      await within(COMMIT_TIMEOUT_MS, this.current.context.commitOffsetsIfNecessary({ topics }))
    } catch (failure) {
      this.finish(failure)
      return { error: nameOf(failure) }
    }
    this.finish()
    return {}
  }

  async close () {
    this.closing = true
    this.finish()
    this.offered.splice(0).forEach(({ resolve }) => resolve())
    await this.running
    await this.kafka.disconnect()
  }
}

function recordsOf (batch) {
  return batch.messages.map(message => {
    const value = message.value.subarray(0, message.value.indexOf('|')).toString()
    return [batch.topic, batch.partition, Number(message.offset), value, payloadHash(message)]
  })
}

// The hash of docs/formats/history.md; the application sets no timestamps.
function payloadHash ({ key, value, headers }) {
  const hash = crypto.createHash('sha256')
  const number = value => {
    const bytes = Buffer.alloc(4)
    bytes.writeInt32BE(value)
    hash.update(bytes)
  }
  const field = content => {
    number(content === null ? -1 : content.length)
    hash.update(content ?? '')
  }
  field(key)
  field(value)
  const each = Object.entries(headers ?? {}).flatMap(([name, contents]) => [contents].flat().map(content => [name, content]))
  number(each.length)
  for (const [name, content] of each) {
    field(Buffer.from(name))
    field(Buffer.from(content))
  }
  hash.update(Buffer.alloc(8, 0xff))
  return hash.digest('hex').slice(0, 16)
}

function make (command, told) {
  switch (command) {
    case 'producer': return new Producer(told)
    case 'member': return new Member(told)
    default: throw new Error(`${command} before its client was made, or not to be had with kafkajs`)
  }
}

// The commands of one client, one after the other; those that are answered as they are taken wait for nothing.
class Desk {
  client = null
  last = Promise.resolve()

  take (told) {
    this.last = this.last.then(async () => {
      try {
        if (this.client) {
          const content = await this.client.obey(told.do, told)
          if (told.do !== 'send' && told.do !== 'drop') answer(told.id, content)
        } else {
          this.client = make(told.do, told)
          answer(told.id, {})
        }
      } catch (failure) {
        log(failure.stack)
        answer(told.id, { failed: String(failure) })
      }
    })
  }
}

const desks = new Map()
const lines = readline.createInterface({ input: process.stdin })
lines.on('line', line => {
  const told = JSON.parse(line)
  if (!desks.has(told.client)) desks.set(told.client, new Desk())
  desks.get(told.client).take(told)
})
lines.on('close', () => process.exit(0))
