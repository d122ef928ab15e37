// Loads the balances of each connected bank and shows them. It needs no token: the browser sends the session cookie to
// the gateway, on the same origin, and the gateway calls the bank.
"use strict";

const AMOUNTS = ["currentBalance", "principalBalance", "currentValue"];
const dollars = new Intl.NumberFormat("en-US", {style: "currency", currency: "USD"});

async function load(section) {
  const status = section.querySelector("[role=status]");
  let response;
  try {
    response = await fetch(section.dataset.url, {headers: {accept: "application/json"}});
  } catch {
    status.textContent = "The gateway cannot be reached.";
    return;
  }
  const body = await response.json();
  if (!response.ok) {
    // A problem of the gateway has a title, and a connect_url where connecting again helps. Akoya's errors have a message.
    status.textContent = `${body.title ?? body.message} (${response.status})`;
    if (body.connect_url) {
      const link = document.createElement("a");
      link.href = body.connect_url;
      link.textContent = "Connect again";
      status.append(" ", link);
    }
    return;
  }
  const accounts = body.accounts.flatMap(Object.values).filter((account) => !account.error);
  for (const account of accounts) {
    const row = section.querySelector("template").content.cloneNode(true);
    const amount = account[AMOUNTS.find((name) => name in account)];
    const cells = [account.nickname, account.accountType.toLowerCase(), `•••• ${account.accountNumberDisplay.slice(-4)}`,
                   dollars.format(amount)];
    row.querySelectorAll("th, td").forEach((cell, number) => { cell.textContent = cells[number]; });
    section.querySelector("tbody").append(row);
  }
  section.querySelector("table").hidden = false;
  status.textContent = response.status === 206 ? "Some accounts could not be loaded." : "";
}

document.querySelectorAll("[data-url]").forEach(load);
