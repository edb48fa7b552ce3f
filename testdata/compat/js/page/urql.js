// A subscription, and beside it a query a second, which must not end it.
import { Client, fetchExchange, gql } from "@urql/core"
import { error, event, n, run, saw, token } from "./compat.js"

const client = new Client({
	url: "/graphql",
	exchanges: [fetchExchange],
	fetchSubscriptions: true,
	fetchOptions: { headers: { Authorization: "Bearer " + token, "X-Instance": n } },
})
const told = ({ data, error: failure }) => (failure ? error(failure) : event({ data: data.tick }))
let subscription
run(() => {
	subscription?.unsubscribe()
	subscription = client.subscription(gql`subscription { tick }`, {}, { url: "/graphql/ticks" }).subscribe(told)
})
setInterval(async () => {
	const { error: failure } = await client.query(gql`{ now }`, {}, { requestPolicy: "network-only" })
	if (failure) saw("error", { text: "query: " + failure.message })
}, 1000)
